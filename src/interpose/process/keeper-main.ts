import { IGNORED } from './signals.ts';

for (const signal of IGNORED) process.on(signal, () => {}); // before the rest is loaded

const { start } = await import('./keeper.ts');
await start(process.argv[2]);
