"""What ships: folders of C sources, tests and descriptions that need nothing of us to be built."""
