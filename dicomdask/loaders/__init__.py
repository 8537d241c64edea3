"""Adapters to what people train and look with, one file a framework."""
