"""Power, cooling, water, carbon and price: pure functions of arrays, one topic a module."""
