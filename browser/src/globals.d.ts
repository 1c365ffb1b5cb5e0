/** Whether this is the build of the whole module, or of the core alone. */
declare const FULL: boolean;
