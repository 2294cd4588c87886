"""Which metric can be trusted: true edits spoilt by known amounts, and how metrics order them."""
