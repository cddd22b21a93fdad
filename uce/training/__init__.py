"""Training encoders: a corpus in, a model folder out. `uce.training.loop.pretrain` runs it all."""
