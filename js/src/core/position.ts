/**
 * A place in one history of a bus: where a reader has got to, and where it resumes. It can be kept as JSON.
 *
 * An offset alone does not tell one history from another: a bus that was deleted and made anew counts from 1 again, and so
 * does a restored older store, under its old epoch. The epoch and the id of the last message seen tell them apart.
 */
export interface Position {
  /** Names the history; "" means "from now on", whatever the history. */
  readonly epoch: string;
  /** The offset of the last message seen. */
  readonly offset: number;
  /** The id of that message; "" where it is not known. */
  readonly id: string;
}

export const NOWHERE: Position = { epoch: "", offset: 0, id: "" };
