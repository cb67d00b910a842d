"""Scores, lesion scores, published figures and pictures."""
