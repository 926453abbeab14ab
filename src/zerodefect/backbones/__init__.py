"""Pretrained networks behind narrow interfaces."""
