"""Scans from file to windows and back to the native grid."""
