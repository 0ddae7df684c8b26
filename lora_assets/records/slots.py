"""The names that clients call (specification, slot-name, candidate-adapter, live-adapter)."""

LIVE_SLOT = "aws-rag-qa-live"
CANDIDATE_SLOT = "aws-rag-qa-candidate"
