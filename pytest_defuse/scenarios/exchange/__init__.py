"""Votes on single tiles by annotation services: export and import."""
