"""Coders: what turns texts into representations."""
