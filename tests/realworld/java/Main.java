public class Main {
    public static void main(String[] args) {
        System.out.println("java " + 6 * 7);
    }
}
