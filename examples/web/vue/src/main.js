import { createPinia } from "pinia";
import { createApp } from "vue";
import { sessionPlugin } from "unbroken-session/vue";
import App from "./App.vue";
import { router } from "./router";
import { session } from "./session";

createApp(App).use(createPinia()).use(router).use(sessionPlugin, session).mount("#app");
