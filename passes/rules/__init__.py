"""Rewrite rules of `canonicalize`, by subject: each file gives a table from op class to rules.  May
import: ir.
"""
