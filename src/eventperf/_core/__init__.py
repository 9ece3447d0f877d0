"""The ground floor: standard library only, shared by every room."""
