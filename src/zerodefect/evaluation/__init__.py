"""Metrics, protocols and results that can be reproduced."""
