"""The native builder: tensors, modules, layers."""
