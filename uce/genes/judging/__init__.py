"""Is a gene table sound: measures, verdict, picture, and facts about it and its genes."""
