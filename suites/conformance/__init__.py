"""The contracts of a drop-in for nn.RNN, nn.GRU and nn.LSTM, one file a topic, and the mutants that prove them."""
