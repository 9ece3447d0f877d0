"""What happens to a value on its way: to bytes and back, into its envelope, out of process memory."""
