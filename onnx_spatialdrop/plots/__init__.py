"""Pictures of uncertainty: figures by matplotlib, and one page of HTML that holds them. It computes no statistics."""
