"""Tests of single modules, on the real file system and a real database; no engine is needed."""
