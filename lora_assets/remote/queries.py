"""What is asked of Dagster's webserver (GraphQL, Dagster 1.13)."""

from typing import NamedTuple


class Query(NamedTuple):
    """A document, and the one field that it asks for."""

    field: str
    document: str


def _query(signature: str, call: str, selection: str = "") -> Query:
    """Ask for one field, and for the message where it is an error."""
    parts = f"__typename ... on Error {{ message }} {selection}"
    return Query(call.partition("(")[0], f"{signature} {{ {call} {{ {parts} }} }}")


LOCATIONS = _query(
    "query",
    "workspaceOrError",
    """
    ... on Workspace {
      locationEntries {
        name
        locationOrLoadError {
          __typename
          ... on PythonError { message errorChain { error { message } } }
          ... on RepositoryLocation { repositories { name jobs { name } } }
        }
      }
    }
    """,
)

RESOURCES = _query(
    "query ($repository: RepositorySelector!)",
    "allTopLevelResourceDetailsOrError(repositorySelector: $repository)",
    "... on ResourceDetailsList { results { name configuredValues { key value type } } }",
)

ADD_PARTITION = _query(
    "mutation ($repository: RepositorySelector!, $set: String!, $key: String!)",
    "addDynamicPartition("
    "repositorySelector: $repository, partitionsDefName: $set, partitionKey: $key)",
)

LAUNCH = _query(
    "mutation ($params: ExecutionParams!)",
    "launchRun(executionParams: $params)",
    "... on RunConfigValidationInvalid { errors { message } }",
)

RUNS = _query(
    "query ($tags: [ExecutionTag!]!)",
    "runsOrError(filter: { tags: $tags })",
    "... on Runs { results { runId status creationTime parentRunId tags { key value } } }",
)

_ENTRIES = """
    metadataEntries {
      label
      ... on TextMetadataEntry { text }
      ... on IntMetadataEntry { intRepr }
    }
"""
EVENTS = _query(
    "query ($run: ID!, $after: String)",
    "logsForRun(runId: $run, afterCursor: $after)",
    f"""
    ... on EventConnection {{
      cursor
      hasMore
      events {{
        __typename
        ... on MessageEvent {{ message level stepKey }}
        ... on ErrorEvent {{ error {{ className message cause {{ className message }} }} }}
        ... on MaterializationEvent {{ assetKey {{ path }} {_ENTRIES} }}
        ... on ObservationEvent {{ assetKey {{ path }} {_ENTRIES} }}
        ... on AssetCheckEvaluationEvent {{
          evaluation {{ checkName success description assetKey {{ path }} {_ENTRIES} }}
        }}
      }}
    }}
    """,
)

TERMINATE = _query(
    "mutation ($run: String!, $policy: TerminateRunPolicy!)",
    "terminateRun(runId: $run, terminatePolicy: $policy)",
)
