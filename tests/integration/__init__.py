"""Tests against a real engine, a real file system and real processes."""
