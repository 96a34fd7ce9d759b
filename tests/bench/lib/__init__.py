"""What tests/bench/compare is made of. Rows stand in files of their own; `row` says what one is."""
