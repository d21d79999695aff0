"""The `irc` command, one file per subcommand, and the tools of the project's own development."""
