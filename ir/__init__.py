"""What a program is: types, dims, ops, regions, text.  Imports nothing else of the package."""
