"""Scores: pictures, surfaces and volumes beside what is true."""
