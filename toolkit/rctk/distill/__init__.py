"""Distillation: a module learns the answers of a teacher, by default those of its own dense parent."""
