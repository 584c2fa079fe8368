import { defineConfig } from 'vitest/config';

/** What takes the packages: minutes, a network, and the right to enter a root. `npm test` leaves it out. */
export default defineConfig({
  test: {
    name: 'packages',
    include: ['packaging/test/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 900_000,
  },
});
