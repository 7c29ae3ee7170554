"""The demonstration: its cases, its people, its processes. Not part of a real site."""
