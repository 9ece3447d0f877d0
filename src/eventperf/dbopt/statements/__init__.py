"""What the application sends: texts cut, named, recorded and counted."""
