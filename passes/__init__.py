"""What can be done to a program.  May import: ir."""
