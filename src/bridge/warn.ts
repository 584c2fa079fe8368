/** Is told what the operator should know and no call shows: a reset, a session that was lost. */
export type Warn = (message: string) => void;
