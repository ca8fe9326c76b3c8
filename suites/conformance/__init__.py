"""The contracts of a drop-in for nn.RNN, nn.GRU and nn.LSTM, in files named after their topics, and the mutants that prove them."""
