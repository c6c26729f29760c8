"""Embedded stores: they start by themselves, live in one data folder and die with us."""
