/**
 * On whose behalf a device is accessed: a call, by its number, which waits if it must and is then repeated; nobody, who has time and for
 * whom nothing is begun (`ahead`); or somebody who cannot wait (`undefined`).
 */
export type Caller = bigint | 'ahead' | undefined;
