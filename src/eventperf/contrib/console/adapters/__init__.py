"""The console in a framework: each brings its requests and sends the answers."""
