"""How a program runs: executables, and one room for each way of making code."""
