/** What the lab needs cannot be had on this machine: it is skipped, except if CI is set. */
export class Unavailable extends Error {}
