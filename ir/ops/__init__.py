"""Every operation, one class each, by family.  Importing this package registers them all."""
