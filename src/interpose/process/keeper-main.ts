import { IGNORED } from './signals.ts';

for (const signal of IGNORED) process.on(signal, () => {}); // before the rest is loaded

void import('./keeper.ts').then(async ({ start }) => start(process.argv[2]));
