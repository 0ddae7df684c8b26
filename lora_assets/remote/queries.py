"""What is asked of Dagster's webserver (GraphQL, Dagster 1.13)."""

LOCATIONS = """
query {
  workspaceOrError {
    __typename
    ... on PythonError { message }
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
  }
}
"""

RESOURCES = """
query ($repository: RepositorySelector!) {
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) {
    __typename
    ... on Error { message }
    ... on ResourceDetailsList { results { name configuredValues { key value type } } }
  }
}
"""

ADD_PARTITION = """
mutation ($repository: RepositorySelector!, $set: String!, $key: String!) {
  addDynamicPartition(
    repositorySelector: $repository, partitionsDefName: $set, partitionKey: $key
  ) {
    __typename
    ... on Error { message }
    ... on UnauthorizedError { message }
  }
}
"""

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""

RUNS = """
query ($tags: [ExecutionTag!]!) {
  runsOrError(filter: { tags: $tags }) {
    __typename
    ... on Error { message }
    ... on Runs { results { runId status creationTime parentRunId tags { key value } } }
  }
}
"""

EVENTS = """
query ($run: ID!, $after: String) {
  logsForRun(runId: $run, afterCursor: $after) {
    __typename
    ... on Error { message }
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on MessageEvent { message level stepKey }
        ... on ErrorEvent {
          error { className message cause { className message } }
        }
        ... on MaterializationEvent { assetKey { path } metadataEntries { ...entry } }
        ... on ObservationEvent { assetKey { path } metadataEntries { ...entry } }
        ... on AssetCheckEvaluationEvent {
          evaluation {
            checkName success description assetKey { path } metadataEntries { ...entry }
          }
        }
      }
    }
  }
}
fragment entry on MetadataEntry {
  label
  ... on TextMetadataEntry { text }
  ... on IntMetadataEntry { intRepr }
}
"""

TERMINATE = """
mutation ($run: String!, $policy: TerminateRunPolicy!) {
  terminateRun(runId: $run, terminatePolicy: $policy) {
    __typename
    ... on Error { message }
    ... on TerminateRunFailure { message }
  }
}
"""
