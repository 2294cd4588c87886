"""Where the source's attention comes from while editing: needs, backends, stores, budget."""
