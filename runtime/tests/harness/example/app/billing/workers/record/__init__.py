"""The record job."""
