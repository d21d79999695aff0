"""`irc report`: what a model became, collected, drawn and written as one offline HTML file."""
