"""Are the vectors of cells any good? Scores, baselines, controls, intervals, and a report that leaves nothing out."""
