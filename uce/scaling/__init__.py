"""Does more data help? Curves of nested subsets of a corpus, their statistics, and the study that draws them."""
