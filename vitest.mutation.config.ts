import { defineConfig } from 'vitest/config';

// For Stryker: the unit tests of the rooms that are mutated, which start no process.
export default defineConfig({
  test: {
    include: ['test/{bridge,v1,v2,vfio,kernel}/**/*.test.ts'],
    setupFiles: 'test/support/to-be-bytes.ts',
    testTimeout: 30_000,
  },
});
