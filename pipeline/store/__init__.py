"""What a data folder holds while it is made: plan, clean documents, receipts; who may touch it."""
