"""Cells of many datasets as one corpus on disk: checked, filtered, without repeats, split, open to any scverse tool."""
